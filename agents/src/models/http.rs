//! One provider's address: sends a request there, reads the answer within bounds, and says in our words what went
//! wrong. Knows nothing of what requests and answers mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use super::api::{Finish, ModelError};
use super::draft::{Draft, Flaw};
use super::secret::Secret;
use super::spec::{ModelSpec, Protocol};
use super::sse::EventParser;

/// The most bytes of an answer.
const LARGEST: usize = 16 << 20;

/// The most bytes of an error's text that are read.
const LARGEST_ERROR: usize = 64 << 10;

/// How long it may take until a server answers the call at all.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a model is asked.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: Client,
    url: String,
    headers: HeaderMap,
    secret: Option<Secret>,
    key_place: String,
    model: String,
    refused: Mutex<BTreeSet<&'static str>>,
}

/// Puts an answer together from the provider's events, or from one whole document.
pub(super) trait Dialect {
    /// Takes one event of a stream.
    fn event(&mut self, data: &Value, draft: &mut Draft) -> Result<(), Flaw>;

    /// Takes an answer that came in one piece.
    fn document(&mut self, document: &Value, draft: &mut Draft) -> Result<(), Flaw>;
}

impl Endpoint {
    /// Reads the key and makes the client. Nothing is sent yet.
    pub(super) fn open(spec: &ModelSpec) -> Result<Self, ModelError> {
        let model = spec.name.clone();
        let unauthorised = |reason: String| ModelError::Unauthorised { model: model.clone(), reason };
        let unavailable = |reason: String| ModelError::Unavailable { model: model.clone(), reason };
        let secret = spec.key.read().map_err(|error| unauthorised(causes(&error)))?;
        let mut headers = HeaderMap::new();
        if let Some(secret) = &secret {
            let (name, value) = match spec.protocol {
                Protocol::Chat => (AUTHORIZATION, format!("Bearer {}", secret.expose())),
                Protocol::Messages => (HeaderName::from_static("x-api-key"), secret.expose().to_owned()),
            };
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| unauthorised("the key fits no header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if spec.protocol == Protocol::Messages {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        let url = spec.endpoint();
        let client = client(&url).map_err(|error| unavailable(causes(&error)))?;
        Ok(Self {
            client,
            url,
            headers,
            secret,
            key_place: spec.key.describe(),
            model,
            refused: Mutex::default(),
        })
    }

    /// The key, for whoever writes down what the provider said.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Tells whether the server has refused a parameter.
    pub(super) fn has_refused(&self, parameter: &str) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(parameter)
    }

    /// Remembers that the server refuses a parameter.
    pub(super) fn refuse(&self, parameter: &'static str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(parameter);
    }

    /// Sends a request and returns the answer's body once its status is a good one.
    pub(super) async fn post(&self, body: &Value) -> Result<Response, ModelError> {
        let request = self.client.post(&self.url).headers(self.headers.clone()).json(body);
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Reads an answer, streamed or whole, and tells `progress` after each piece how far it has come.
    pub(super) async fn read(
        &self,
        mut response: Response,
        dialect: &mut (dyn Dialect + Send),
        progress: &(dyn Fn(&Draft) + Sync),
    ) -> Result<Draft, ModelError> {
        let mut draft = Draft::default();
        let mut parser: Option<EventParser> = None;
        let mut start = Vec::new();
        let mut size = 0_usize;
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(error))? {
            size += piece.len();
            if size > LARGEST {
                return Err(self.malformed(format!("it is longer than {} MiB", LARGEST >> 20)));
            }
            let events = match &mut parser {
                Some(parser) => parser.feed(&piece),
                None => {
                    start.extend_from_slice(&piece);
                    // A document or a page of HTML is read to its end first; a stream tells by its first word.
                    match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
                        Some(b'{' | b'[' | b'<' | b'"') | None => continue,
                        Some(_) => parser.insert(EventParser::default()).feed(&std::mem::take(&mut start)),
                    }
                }
            };
            for event in events {
                self.event(&event, dialect, &mut draft)?;
            }
            progress(&draft);
        }
        match parser {
            Some(parser) => {
                if let Some(event) = parser.end() {
                    // What is cut off is told by the missing end, below.
                    let _ = self.event(&event, dialect, &mut draft);
                }
            }
            None => self.document(&start, dialect, &mut draft)?,
        }
        if draft.finish.is_none() {
            return Err(self.unavailable("the connection ended in the middle of the answer".to_owned()));
        }
        Ok(draft)
    }

    fn event(
        &self,
        event: &str,
        dialect: &mut (dyn Dialect + Send),
        draft: &mut Draft,
    ) -> Result<(), ModelError> {
        match event.trim() {
            "" => return Ok(()),
            "[DONE]" => {
                draft.finish.get_or_insert(Finish::Stop);
                return Ok(());
            }
            _ => {}
        }
        let value: Value = serde_json::from_str(event).map_err(|error| {
            self.malformed(format!("an event of the stream is not JSON ({error}): {}", self.said(event)))
        })?;
        dialect.event(&value, draft).map_err(|flaw| self.flaw(flaw))
    }

    fn document(
        &self,
        bytes: &[u8],
        dialect: &mut (dyn Dialect + Send),
        draft: &mut Draft,
    ) -> Result<(), ModelError> {
        let text = String::from_utf8_lossy(bytes);
        if text.trim().is_empty() {
            return Err(self.malformed("it is empty".to_owned()));
        }
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| self.malformed(format!("it is not JSON ({error}): {}", self.said(&text))))?;
        dialect.document(&value, draft).map_err(|flaw| self.flaw(flaw))
    }

    fn flaw(&self, flaw: Flaw) -> ModelError {
        match flaw {
            Flaw::Malformed(reason) => {
                self.malformed(self.secret.as_ref().map_or(reason.clone(), |secret| secret.scrub(&reason)))
            }
            Flaw::Provider(error) => {
                let text = error.to_string();
                let status = error_status(&error).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.by_status(status, &text, None)
            }
        }
    }

    async fn refusal(&self, mut response: Response) -> ModelError {
        let status = response.status();
        let after = retry_after(response.headers(), Timestamp::now());
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let mut text = location.map(|location| format!("it has moved to {location}")).unwrap_or_default();
        let mut body = Vec::new();
        // What cannot be read of an error's text is not missed.
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_ERROR {
                break;
            }
        }
        if text.is_empty() {
            text = String::from_utf8_lossy(&body).into_owned();
        }
        self.by_status(status, &text, after)
    }

    fn by_status(&self, status: StatusCode, text: &str, after: Option<Duration>) -> ModelError {
        let model = self.model.clone();
        let said = self.said(text);
        let code = status.as_u16();
        let lower = text.to_lowercase();
        let is_about = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let is_long = [
            "context_length_exceeded",
            "maximum context length",
            "context window",
            "contextwindowexceeded",
            "prompt is too long",
            "context size",
            "too many tokens",
        ];
        match code {
            401..=403 => {
                ModelError::Unauthorised { model, reason: format!("{said} ({code}; {})", self.key_place) }
            }
            429 if is_about(&["insufficient_quota", "exceeded your current quota"]) => {
                ModelError::Unauthorised { model, reason: format!("the account has no more credit: {said}") }
            }
            429 | 529 => ModelError::Limited { model, reason: said, after },
            400 | 413 | 422 if is_about(&is_long) => ModelError::TooLong { model, reason: said },
            404 => {
                let url = &self.url;
                let reason = format!("{said}; asked at {url}: check the model's name and the base URL");
                ModelError::Refused { model, status: code, reason }
            }
            408 | 409 | 425 | 500..=599 => {
                ModelError::Unavailable { model, reason: format!("the provider failed ({code}): {said}") }
            }
            _ => ModelError::Refused { model, status: code, reason: said },
        }
    }

    fn malformed(&self, reason: String) -> ModelError {
        ModelError::Malformed { model: self.model.clone(), reason }
    }

    fn unavailable(&self, reason: String) -> ModelError {
        ModelError::Unavailable { model: self.model.clone(), reason }
    }

    fn broken(&self, error: reqwest::Error) -> ModelError {
        let connecting = error.is_connect();
        let error = error.without_url();
        let what = if connecting {
            format!("cannot connect to {}", self.url)
        } else {
            "the connection broke".to_owned()
        };
        self.unavailable(format!("{what}: {}", causes(&error)))
    }

    /// What a provider said, in one line, without the key.
    fn said(&self, text: &str) -> String {
        let told = tell(text);
        self.secret.as_ref().map_or_else(|| told.clone(), |secret| secret.scrub(&told))
    }
}

/// Makes the client of an address. Redirects are not followed: they would carry the key to another place.
fn client(url: &str) -> Result<Client, reqwest::Error> {
    // It can be installed only once, and whoever did that before us chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("mlgym/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT);
    // The system's roots, or those of SSL_CERT_FILE and SSL_CERT_DIR, are read by the verifier itself.
    let builder = if url.starts_with("https:") { builder } else { builder.tls_certs_only([]) };
    if is_loopback(url) { builder.no_proxy().build() } else { builder.build() }
}

/// Tells whether an address is on this machine, where no proxy leads.
pub(super) fn is_loopback(url: &str) -> bool {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How long a provider asks to wait, from `retry-after-ms` or `retry-after`, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let text = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(text) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// The HTTP status that an error within an answer stands for.
fn error_status(error: &Value) -> Option<StatusCode> {
    let error = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
    let code = error.get("code").or_else(|| error.get("status"));
    let number = code.and_then(|code| match code {
        Value::Number(number) => number.as_u64().and_then(|code| u16::try_from(code).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    if let Some(status) = number.and_then(|code| StatusCode::from_u16(code).ok()) {
        return Some(status);
    }
    let kind = error.get("type").and_then(Value::as_str).or_else(|| code.and_then(Value::as_str));
    Some(match kind? {
        "rate_limit_error" | "rate_limit_exceeded" | "overloaded_error" => StatusCode::TOO_MANY_REQUESTS,
        "authentication_error" | "permission_error" => StatusCode::UNAUTHORIZED,
        "invalid_request_error" => StatusCode::BAD_REQUEST,
        "not_found_error" => StatusCode::NOT_FOUND,
        _ => return None,
    })
}

/// Finds the message in what a provider says when it fails: its own words, the title of a page, or the beginning.
fn tell(text: &str) -> String {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let message = json.as_ref().and_then(message_of);
    let page = || {
        let lower = text.to_ascii_lowercase();
        let start = lower.find("<title>")? + "<title>".len();
        let end = lower[start..].find("</title>")?;
        Some(format!("an HTML page titled {:?}", text[start..start + end].trim()))
    };
    let is_page = text.trim_start().starts_with('<');
    let told = message.or_else(|| if is_page { page() } else { None }).unwrap_or_else(|| text.to_owned());
    let line: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    match line.char_indices().nth(500) {
        _ if line.is_empty() => "it said nothing".to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn message_of(json: &Value) -> Option<String> {
    let error = json.get("error").unwrap_or(json);
    let found = ["message", "detail", "error"].into_iter().find_map(|name| error.get(name));
    match found.unwrap_or(error) {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) if found.is_some() => found.and_then(message_of),
        _ => None,
    }
}

/// An error with what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_found_wherever_it_says_it() {
        let check = |text: &str, expected: &str| assert_eq!(tell(text), expected);
        check(r#"{"error": {"message": "no such model", "type": "x"}}"#, "no such model");
        check(r#"{"error": "no such model"}"#, "no such model");
        check(r#"{"detail": "Not Found"}"#, "Not Found");
        check(r#"{"object": "error", "message": "too\n long"}"#, "too long");
        check("<html><head><TITLE>502 Bad Gateway</TITLE>…", "an HTML page titled \"502 Bad Gateway\"");
        check("upstream\u{1b}[31m failed\n", "upstream[31m failed");
        check("", "it said nothing");
        assert_eq!(tell(&"x".repeat(9000)).chars().count(), 501);
    }

    #[test]
    fn the_wait_is_read_as_seconds_and_as_a_date() {
        let now: Timestamp = "2015-10-21T07:27:50Z".parse().unwrap();
        let check = |name: &'static str, value: &str, expected: Option<f64>| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::try_from(value).unwrap(),
            )]);
            assert_eq!(
                retry_after(&headers, now).map(|wait| wait.as_secs_f64()),
                expected,
                "{name}: {value}"
            );
        };
        check("retry-after", "7", Some(7.0));
        check("retry-after", "0.5", Some(0.5));
        check("retry-after-ms", "250", Some(0.25));
        check("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", Some(10.0));
        check("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT", Some(0.0));
        check("retry-after", "soon", None);
        check("retry-after", "-1", None);
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        for url in ["http://127.0.0.1:8399/v1", "http://localhost:11434/v1", "http://[::1]:80"] {
            assert!(is_loopback(url), "{url}");
        }
        assert!(!is_loopback("https://localhost.example/v1"));
    }
}
