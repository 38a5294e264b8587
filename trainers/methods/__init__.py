"""The trainers of SFT, DPO, KTO and embeddings."""
