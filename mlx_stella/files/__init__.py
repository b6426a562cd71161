"""Files for all rooms: tables of texts, locks, and writing whole or not at all."""
