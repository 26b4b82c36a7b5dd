"""Fit a small scikit-learn model and write it where the argument says."""

import sys

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

x = np.random.default_rng(0).normal(size=(200, 3))
joblib.dump(LogisticRegression().fit(x, (x.sum(axis=1) > 0).astype(int)), sys.argv[1])
