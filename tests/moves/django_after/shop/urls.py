from django.urls import path

from shop import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<int:number>/cancel", views.cancel),
    path("endpoints", views.endpoints),
    path("endpoints/<str:pk>", views.endpoint),
    path("endpoints/<str:pk>/test", views.test),
    path("endpoints/<str:pk>/log", views.log),
]
