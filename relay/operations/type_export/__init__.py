"""The catalogue as a document for others: a JSON Schema, an AsyncAPI 3 document, or a page in Markdown. Pure."""
