"""What is kept."""

from django.db import models


class Mail(models.Model):
    """A mail and what it is about; `subject` is empty until its batch came back."""

    text = models.TextField()
    subject = models.CharField(max_length=500, blank=True)
    urgent = models.BooleanField(null=True)
    trouble = models.TextField(blank=True)

    def __str__(self) -> str:
        return self.subject or f"mail {self.pk}"
