"""The network: frontends, encoder, CTC heads, decoder."""
