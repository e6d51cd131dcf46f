"""Makes windows of sensor readings of eight activities, recorded by thirty devices."""

import numpy as np
import pandas as pd
from mlgym_data import public

rng = np.random.default_rng(20210218)
activities = ["climbing", "cycling", "resting", "rowing", "running", "skating", "standing", "walking"]
devices, features, rows = 30, 24, 15000

# Activities that are alike lie near each other.
kinds = rng.normal(0, 1.0, (3, features))
kind = {"climbing": 0, "running": 0, "walking": 0, "cycling": 1, "rowing": 1, "skating": 1, "resting": 2, "standing": 2}
centres = np.array([kinds[kind[name]] + rng.normal(0, 0.36, features) for name in activities])
mixing = rng.normal(0, 1, (features, features)) / np.sqrt(features)
offsets = rng.normal(0, 0.3, (devices, features))
gains = np.exp(rng.normal(0, 0.08, (devices, features)))
habits = rng.dirichlet(np.full(len(activities), 1.5), devices)

device = np.sort(rng.integers(0, devices, rows))
activity = np.array([rng.choice(len(activities), p=habits[number]) for number in device])
values = centres[activity] + rng.normal(0, 1.25, (rows, features)) @ (np.eye(features) + 0.6 * mixing)
values = values * gains[device] + offsets[device]
# Units as the sensors give them.
units = np.exp(rng.normal(0, 1.2, features))
table = pd.DataFrame((values * units).round(4), columns=[f"s{number:02d}" for number in range(features)])
table.insert(0, "part", np.where(device >= 24, "test", "train"))
table.insert(0, "activity", np.array(activities)[activity])
table.insert(0, "device", [f"dev-{number:02d}" for number in device])
table.to_csv(public() / "readings.csv", index=False)
