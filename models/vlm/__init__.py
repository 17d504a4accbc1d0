"""Files of vision-language models: front, language model, adapters."""
