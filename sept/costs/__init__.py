"""What work costs: energy, CO2e, peak rates of cards, and how shared costs are divided. No torch here."""
