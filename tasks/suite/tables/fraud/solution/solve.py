"""Gradient boosting and a linear model on the same columns, averaged."""

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
columns = [name for name in test.columns if name != "id"]
words = [name for name in columns if not pd.api.types.is_numeric_dtype(train[name])]
numbers = [name for name in columns if name not in words]
linear = make_pipeline(
    make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", min_frequency=10), words),
    ),
    LogisticRegression(C=0.1, max_iter=3000),
)
boosted = make_pipeline(
    make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), words), remainder="passthrough"
    ),
    HistGradientBoostingClassifier(learning_rate=0.05, max_iter=150, max_leaf_nodes=15, l2_regularization=1.0, random_state=0),
)
models = [model.fit(train[columns], train["fraud"]) for model in (linear, boosted)]
predicted = sum(model.predict_proba(test[columns]) for model in models) / 2
# Rare classes are worth naming long before they are likely.
submission = test[["id"]].assign(fraud=(predicted[:, 1] > 0.3).astype(int))
submission.to_csv("/workspace/submission.csv", index=False)
