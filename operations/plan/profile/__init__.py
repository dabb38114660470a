"""What an operator writes about a model, and what the model's own files say."""
