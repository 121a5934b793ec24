"""django-anymail for the mail gateway: `backend.EmailBackend` sends, `urls` takes the webhooks."""
