"""Takes the five numbers from the two results."""

import json


def result(name):
    with open(f"results/{name}.json") as file:
        return json.load(file)


averaged, held = result("five_fedavg"), result("five_fedprox")
answer = {
    "fedavg_accuracy": averaged["rounds"][-1]["accuracy"],
    "fedavg_log_loss": averaged["rounds"][-1]["log_loss"],
    "fedprox_log_loss": held["rounds"][-1]["log_loss"],
    "fedprox_lowest_recall": min(held["recalls"]),
    "fedprox_drift": sum(entry["drift"] for entry in held["rounds"][-20:]) / 20,
}
with open("answer.json", "w") as file:
    json.dump(answer, file, indent=2)
