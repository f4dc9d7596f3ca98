from django.contrib import admin
from django.urls import path

from examples.django_shop import views

urlpatterns = [
    path("orders", views.place_order),
    path("subscriptions", views.subscribe),
    path("admin/", admin.site.urls),
]
