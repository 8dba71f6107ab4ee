"""Networks of any rank."""
