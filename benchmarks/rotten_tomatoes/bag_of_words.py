"""What fine-tuning has to beat: words and pairs of words counted, and a linear model of them."""

from benchmarks.rotten_tomatoes.task import Task


def accuracy(task: Task) -> float:
    """Return the test accuracy of tf-idf of words and pairs of words with logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(task.train.texts, task.train.labels)
    return float(model.score(task.test.texts, task.test.labels))
