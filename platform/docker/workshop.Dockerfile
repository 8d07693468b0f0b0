# The whole workshop in one image. README.md shows how it is built and run.
#
# BASE is another image of Debian 13, such as your company's with the certificate of its proxy. The instructions up to
# USER are those of .devcontainer/Dockerfile.
ARG BASE=debian:trixie-slim
FROM ${BASE}
COPY platform/provision.sh platform/readiness.sh /image/platform/
COPY platform/docker/system.sh /image/platform/docker/
RUN bash /image/platform/docker/system.sh
ENV LANG=C.UTF-8
USER learner

# WORKDIR would make a folder that belongs to root.
RUN mkdir /home/learner/workshop
WORKDIR /home/learner/workshop
COPY --chown=learner . .
RUN ./workshop setup && rm -rf ~/.cache ~/.npm
# A repository of the image's own, for `git diff` and `git stash`: that of the host may contain passwords.
RUN git init --quiet && git add . \
    && git -c user.name=workshop -c user.email=workshop@localhost commit --quiet --message "Add the workshop"
# `docker run --publish` reaches the container's interface, not its loopback.
ENV WORKSHOP_BIND=0.0.0.0
# As in platform/ports.json.
EXPOSE 8080-8085
# bash ends on SIGHUP. An interactive bash ignores SIGTERM.
STOPSIGNAL SIGHUP
CMD ["bash"]
