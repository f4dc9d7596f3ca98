import secrets

from django.db import models


class Order(models.Model):
    account = models.CharField(max_length=50)
    cents = models.IntegerField()
    state = models.CharField(max_length=20, default="placed")

    def as_json(self):
        return {"number": self.pk, "cents": self.cents, "state": self.state}


def new_secret():
    return secrets.token_urlsafe(32)
