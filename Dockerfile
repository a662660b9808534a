# One image for every process of the product; compose and Kubernetes choose the command.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY hubspot_deals hubspot_deals
COPY api api
COPY hubspot_sandbox hubspot_sandbox
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /app --no-create-home hubspot
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY workspace.yaml ./
COPY dagster_home/dagster.yaml dagster_home/dagster.yaml
RUN mkdir dagster_home/storage dagster_home/launcher && chown -R hubspot dagster_home
ENV PATH=/opt/venv/bin:$PATH \
    DAGSTER_HOME=/app/dagster_home \
    PYTHONUNBUFFERED=1 \
    RUNTIME__DLTHUB_TELEMETRY=false
USER hubspot
CMD ["uvicorn", "api.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "5000", "--http", "api.edge.protocol:BoundedProtocol", "--no-server-header"]
