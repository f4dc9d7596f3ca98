from django.urls import path

from shop import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<int:number>/cancel", views.cancel),
    path("endpoints", views.endpoints),
    path("endpoints/<int:pk>", views.endpoint),
    path("endpoints/<int:pk>/test", views.test),
    path("endpoints/<int:pk>/log", views.log),
]
