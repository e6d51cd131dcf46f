"""A linear support vector machine on n-grams of words, which carry the order, and of letters, which survive slips."""

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
words = TfidfVectorizer(ngram_range=(1, 4), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 6), sublinear_tf=True, min_df=2)
model = make_pipeline(make_union(words, letters), LinearSVC(C=1.0))
model.fit(train["message"], train["desk"])
test[["id"]].assign(desk=model.predict(test["message"])).to_csv("/workspace/submission.csv", index=False)
