-- What a run was for, so that solutions of users' own tasks do not mix with the suites' scores; and how a delivered
-- solution was assessed: success rate, normalised performance score and comprehensive score, absent where nothing was.
ALTER TABLE episodes ADD COLUMN purpose TEXT NOT NULL DEFAULT 'eval';
ALTER TABLE episodes ADD COLUMN sr REAL;
ALTER TABLE episodes ADD COLUMN nps REAL;
ALTER TABLE episodes ADD COLUMN cs REAL;
