"""What K-MADDPG and K-FACMAC share."""
