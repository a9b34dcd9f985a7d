# One image for every service of lowtide: the worker by default, Flower and the commands too.

FROM python:3.13-slim AS build
WORKDIR /build
COPY config/constraints.txt config/constraints.txt
RUN python -m venv /venv && /venv/bin/pip install --quiet --constraint config/constraints.txt --upgrade pip
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /venv/bin/pip install --quiet --no-cache-dir --constraint config/constraints.txt \
      --build-constraint config/constraints.txt '.[postgres,flower,simulator]'

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /var/lib/lowtide lowtide
COPY --from=build /venv /venv
WORKDIR /app
COPY worker worker
COPY tasks tasks
COPY config config
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 LOWTIDE_HOME=/var/lib/lowtide
USER lowtide
VOLUME /var/lib/lowtide
# SIGTERM is Celery's warm shutdown: running tasks end, nothing new is taken.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "worker.app", "worker", "--loglevel", "INFO"]
