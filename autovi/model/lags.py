"""Names of a site's values some steps before, in a scan whose steps stand side by side."""


def lagged(site: str, lag: int) -> str:
    """The site's value `lag` steps before."""
    return site if lag == 0 else f"{site}@{lag}"
