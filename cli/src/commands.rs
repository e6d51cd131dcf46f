//! One file per command.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod clean;
pub(crate) mod code;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod execute;
pub(crate) mod gpu;
pub(crate) mod image;
pub(crate) mod leaderboard;
pub(crate) mod model;
pub(crate) mod redteam;
pub(crate) mod run;
pub(crate) mod solve;
pub(crate) mod task;
