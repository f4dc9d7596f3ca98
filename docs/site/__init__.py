"""The documentation as a site: `python -m docs.site OUT` builds it, without network.

Pages are copied from docs/, README and CHANGELOG; those of the reference are made from the code. zensical.toml has the
navigation. A link that leads nowhere, or an asset from elsewhere, fails the build.
"""
