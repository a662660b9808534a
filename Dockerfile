# One image for every process of the product; compose and Kubernetes choose the command.
# It runs as an ordinary user on a read-only root: only /tmp, DAGSTER_HOME's folders and the folder
# of downloads are written to.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY hubspot_deals hubspot_deals
COPY api api
COPY hubspot_sandbox hubspot_sandbox
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv install --no-cache-dir -c constraints.txt ".[kubernetes]"

FROM python:3.11.14-slim-bookworm
# Nothing is installed in a container, and what installs has holes of its own.
RUN pip uninstall --yes --root-user-action ignore pip setuptools wheel \
    && useradd --system --uid 10001 --home-dir /app --no-create-home hubspot
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY workspace.yaml ./
COPY dagster_home/dagster.yaml dagster_home/dagster.yaml
# Volumes take their owner from here when they are made.
RUN mkdir -p dagster_home/storage dagster_home/launcher /var/lib/hubspot-deals/downloads \
    && chown -R hubspot dagster_home /var/lib/hubspot-deals
# HOME is where dlt keeps what it may forget.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    DAGSTER_HOME=/app/dagster_home \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RUNTIME__DLTHUB_TELEMETRY=false \
    HUBSPOT_DEALS_DOWNLOAD_DIR=/var/lib/hubspot-deals/downloads
# By number, so that Kubernetes can tell that it is not root.
USER 10001
CMD ["uvicorn", "api.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "5000", "--http", "api.edge.protocol:BoundedProtocol", "--no-server-header", "--timeout-graceful-shutdown", "20"]
