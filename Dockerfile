# Two stages: what builds stays behind. docs/install.md says how to run the image.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/evenflow
# First what rarely changes, so that a new version of evenflow does not fetch everything anew.
COPY requirements.lock ./
RUN /opt/evenflow/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY actors actors
COPY server server
RUN /opt/evenflow/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/evenflow/bin/pip uninstall --yes pip setuptools

FROM python:${PYTHON}-slim
COPY --from=build /opt/evenflow /opt/evenflow
ENV PATH=/opt/evenflow/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EVENFLOW_BIND=0.0.0.0:8143
# An evenflow.toml mounted here is read without a flag.
WORKDIR /etc/evenflow
# A number and no name, so that Kubernetes' runAsNonRoot can see that it is not root. It owns no file and needs no home.
USER 10001:10001
EXPOSE 8143
STOPSIGNAL SIGTERM
# /healthz answers to any name and without a key. Only the port of EVENFLOW_BIND is looked at: who changes it changes nothing here.
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['EVENFLOW_BIND'].rpartition(':')[2] + '/healthz', timeout=2)"]
# It listens on every interface of the container, and so wants a client key (EVENFLOW_CLIENT_KEYS) or --allow-anonymous.
ENTRYPOINT ["evenflow"]
CMD ["serve"]
