"""What judging rests on: the evidence of a case, what is owed, where the wrong elements sit."""
