"""The pages that `asv publish` writes: asv's own, without the network, and an overview that is seen first.

asv loads `publisher` by asv.conf.json. Nothing else is imported before something is published, so that measuring needs
none of what the pages are made with.
"""
