"""The first form of the tables."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes the table of mails."""

    initial = True
    operations = (
        migrations.CreateModel(
            name="Mail",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("text", models.TextField()),
                ("subject", models.CharField(blank=True, max_length=500)),
                ("urgent", models.BooleanField(null=True)),
                ("trouble", models.TextField(blank=True)),
            ],
        ),
    )
