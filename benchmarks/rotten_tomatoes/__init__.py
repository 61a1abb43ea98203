"""Film reviews, fresh or rotten: npbert and transformers fine-tuned on them, accuracy and time."""
