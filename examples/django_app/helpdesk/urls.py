"""Which address leads where."""

from django.urls import path

from helpdesk import views

urlpatterns = [
    path("mails/", views.mails),
    path("mails/<int:mail_id>/", views.mail),
]
