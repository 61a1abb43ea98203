"""What a model can be fine-tuned for, from files: a module a task.

Each has a class for a file (`TaskFile`): it reads, it encodes for the model, and it turns the model's scores
into answers and says how good these are.
"""

from npbert.training.tasks.interface import Logits, Record, TaskFile
from npbert.training.tasks.question_answering import QuestionFile
from npbert.training.tasks.sequence_classification import TextFile
from npbert.training.tasks.token_classification import SentenceFile

__all__ = ["Logits", "QuestionFile", "Record", "SentenceFile", "TaskFile", "TextFile"]
