"""What others read of a bundle in formats of their own: model card, STAC item, bill of materials."""
