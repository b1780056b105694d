"""The documents of Cloud Agency and nothing else: models, their XML, YAML and JSON forms, and schemas.

Everything that comes from outside enters through :func:`descriptors.documents.load`.
"""
