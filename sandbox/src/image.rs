//! Images: built when their inputs changed, found when they did not.
