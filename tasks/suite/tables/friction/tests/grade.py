import numpy as np
from mlgym_grader import labels, read_table, reward

ids, rows = labels()
predicted = read_table(["stopping"], ids)["stopping"].loc[rows["id"]].to_numpy()
known = rows["target"].to_numpy(float)
reward(rmse=np.sqrt(np.mean((predicted - known) ** 2)))
