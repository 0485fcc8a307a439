################################################################################
#
# comptoir
#
################################################################################

# Label of the image, of its os-release and of its bundle.
COMPTOIR_VERSION ?= $(shell $(BR2_EXTERNAL_COMPTOIR_PATH)/../scripts/image --print-label)
COMPTOIR_LICENSE = MIT
# No source: the binary was cross-built before, by scripts/cross.
COMPTOIR_SOURCE =
COMPTOIR_BINARY = $(call qstrip,$(BR2_PACKAGE_COMPTOIR_BINARY))

define COMPTOIR_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(COMPTOIR_BINARY) $(TARGET_DIR)/usr/bin/comptoir
endef

# The same ids as overlay/usr/lib/sysusers.d/comptoir.conf: the data partition outlives any one image.
define COMPTOIR_USERS
	comptoir 900 comptoir 900 * /data/comptoir - - Comptoir
endef

# Read by board/common/post-build.sh and post-image.sh.
export COMPTOIR_VERSION

$(eval $(generic-package))
