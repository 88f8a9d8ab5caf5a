/*
 * Preloaded into libreswan where the kernel has no ESP: its answers "not implemented" and "no such SA" become
 * "done". IKE goes on as if the SAs were installed; packets are not carried.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <sys/socket.h>

typedef ssize_t receiver(int, void *, size_t, int, struct sockaddr *, socklen_t *);

ssize_t recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
  receiver *real = (receiver *) dlsym(RTLD_NEXT, "recvfrom");
  ssize_t got = real(fd, buffer, size, flags, from, length);
  struct nlmsghdr *header = buffer;
  if (got < (ssize_t) NLMSG_LENGTH(sizeof(struct nlmsgerr))) return got;
  if (from == NULL || from->sa_family != AF_NETLINK || header->nlmsg_type != NLMSG_ERROR) return got;
  struct nlmsgerr *answer = NLMSG_DATA(header);
  if (answer->error == -ENOSYS || answer->error == -EPROTONOSUPPORT || answer->error == -ESRCH)
    answer->error = 0;
  return got;
}
