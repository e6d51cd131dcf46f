//! Experiences of earlier runs, as documents by the kind of data: what they say is their writer's business.

use sqlx::{FromRow, Row};

use crate::store::{Leaderboard, LeaderboardError, query};

/// So many experiences of a kind are handed out, the newest.
const MOST: i64 = 500;

/// An experience as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StoredExperience {
    /// Its number, which only grows.
    pub id: i64,
    /// The document.
    pub experience: String,
}

impl Leaderboard {
    /// Stores an experience about a kind of data and a task.
    pub async fn remember(&self, kind: &str, task: &str, experience: &str) -> Result<(), LeaderboardError> {
        sqlx::query("INSERT INTO experiences (kind, task, experience, noted_at) VALUES ($1, $2, $3, $4)")
            .bind(kind)
            .bind(task)
            .bind(experience)
            .bind(jiff::Timestamp::now().to_string())
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(query("write to"))
    }

    /// Returns what is stored about a kind of data and a task, the oldest first.
    pub async fn experiences(
        &self,
        kind: &str,
        task: &str,
    ) -> Result<Vec<StoredExperience>, LeaderboardError> {
        let newest =
            "SELECT id, experience FROM experiences WHERE kind = $1 AND task = $2 ORDER BY id DESC LIMIT $3";
        let rows = sqlx::query(newest).bind(kind).bind(task).bind(MOST).fetch_all(self.pool()).await;
        let rows = rows.map_err(query("read"))?;
        Ok(rows
            .iter()
            .rev()
            .map(|row| StoredExperience { id: row.get("id"), experience: row.get("experience") })
            .collect())
    }

    /// Forgets all experiences, and returns how many there were.
    pub async fn forget(&self) -> Result<u64, LeaderboardError> {
        let deleted = sqlx::query("DELETE FROM experiences").execute(self.pool()).await;
        deleted.map(|deleted| deleted.rows_affected()).map_err(query("write to"))
    }
}
