"""The shop's own table."""

from django.db import models


class Order(models.Model):
    cents = models.IntegerField()
