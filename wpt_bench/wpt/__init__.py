"""WPT: reward-free pre-training, retrieval, experience rehearsal, execution guidance, the fine-tuning agent."""
