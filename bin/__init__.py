"""The programs: orlopd, orlop, orlop-load; and the real world that they hand to the rooms below."""
