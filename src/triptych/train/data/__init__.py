"""Captioned pictures for mini-image: free emoji art, fetched, rasterised, and composed into scenes on the fly."""
