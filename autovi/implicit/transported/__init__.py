"""Maps of noise that leave a part of the density to a score term: for RSVI and G-REP."""
