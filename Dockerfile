# Comptoir for production: web processes without the model of this machine; compose.yaml shows the whole.
# `docker build --build-arg PROFILE=up .` brings that model along, `--build-arg EXTRAS=bedrock,vertex` the libraries of
# those clouds.

FROM python:3.13-slim AS build
ARG PROFILE=serve
ARG EXTRAS=
WORKDIR /app
COPY requirements.lock requirements-dev.lock model.lock node.lock package.json package-lock.json .npmrc ./
COPY config/install.py config/install.py
COPY extras extras
COPY locale locale
RUN COMPTOIR_EXTRAS=$EXTRAS python -I config/install.py $PROFILE

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /data comptoir
WORKDIR /app
COPY . .
COPY --from=build /app/.venv .venv
COPY --from=build /app/static/vendor static/vendor
COPY --from=build /app/locale locale
RUN .venv/bin/python -m compileall -q config console gateway playground providers usage
USER comptoir
ENV COMPTOIR_HOST=0.0.0.0 COMPTOIR_PORT=8000 COMPTOIR_DATA=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/app/.venv/bin/python", "-m", "config.health"]
# It migrates the database first; processes that start together do so one after the other.
ENTRYPOINT ["/app/.venv/bin/python", "-m", "config.up"]
STOPSIGNAL SIGTERM
