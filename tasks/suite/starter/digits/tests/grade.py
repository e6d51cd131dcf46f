import numpy as np
from mlgym_grader import labels, read_table, reward

ids, rows = labels()
predicted = read_table(["digit"], ids)["digit"].loc[rows["id"]].to_numpy()
reward(accuracy=np.mean(predicted == rows["target"].to_numpy(float)))
