"""What people write in prompts, to what text towers are fed: tokens, the prompt language, chunks, learned words."""
