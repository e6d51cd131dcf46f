//! Files in and out through the engine's archive calls, streamed.

use std::io;
use std::path::Path;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::archive::{host, pack, unpack};
use crate::backend::SandboxError;
use crate::docker::engine;
use crate::spec::SandboxId;
use crate::transfer::{FileSource, TransferCaps, TransferError, Transferred};

pub(crate) async fn put(
    docker: &Docker,
    container: &SandboxId,
    target: &str,
    source: FileSource,
) -> Result<(), SandboxError> {
    let packed = tokio::task::spawn_blocking(move || pack(source)).await;
    let file = match packed {
        Ok(file) => file?,
        Err(error) => return Err(host("pack files")(Path::new(target), io::Error::other(error)).into()),
    };
    let stream = ReaderStream::new(tokio::fs::File::from_std(file));
    let options =
        UploadToContainerOptionsBuilder::default().path(target).no_overwrite_dir_non_dir("true").build();
    let body = bollard::body_try_stream(stream);
    docker.upload_to_container(&container.0, Some(options), body).await.map_err(engine("put files into"))
}

/// Copies `path` out of the container to `target`, which must not exist yet.
pub(crate) async fn get(
    docker: &Docker,
    container: &SandboxId,
    path: &str,
    target: &Path,
    caps: TransferCaps,
) -> Result<Transferred, SandboxError> {
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let stream = docker.download_from_container(&container.0, Some(options));
    let mut stream = Box::pin(stream.peekable());
    if let Some(Err(Error::DockerResponseServerError { status_code: 404, message })) =
        stream.as_mut().peek().await
    {
        if message.contains("No such container") {
            return Err(SandboxError::Lost { id: container.clone(), reason: message.clone() });
        }
        return Err(TransferError::Missing { path: path.to_owned() }.into());
    }
    let reader = StreamReader::new(stream.map_err(io::Error::other));
    let bridge = SyncIoBridge::new(reader);
    let (path, target) = (path.to_owned(), target.to_owned());
    let unpacked = tokio::task::spawn_blocking(move || unpack(bridge, &path, &target, caps)).await;
    match unpacked {
        Ok(result) => Ok(result?),
        Err(error) => Err(host("unpack files")(Path::new(""), io::Error::other(error)).into()),
    }
}
